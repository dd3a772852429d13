"""Other projects' own test suites, on the standard loop and on asyncloop. See __main__.py."""
