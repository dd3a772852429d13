"""The application of selection_apps.py for a server that looks into the module itself."""

from selection_apps import make_quart_app

app = make_quart_app()
