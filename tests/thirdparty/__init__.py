"""Other projects' servers, clients and test plugins, for real, on both loops.

Run by `make thirdparty`, which installs the versions that pyproject.toml pins; not part of
`make test`. Like every test here they run on the standard loop as well, so that a failure on
asyncloop alone is asyncloop's.
"""
