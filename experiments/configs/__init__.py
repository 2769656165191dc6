"""Configuration files: Python files with `get_config()`, given to `--config=`."""
