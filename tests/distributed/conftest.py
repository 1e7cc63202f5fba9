"""The script is started by the tests, and is none itself."""

collect_ignore = ["script.py"]
