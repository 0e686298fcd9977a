"""Pictures and reports of a run. Importing this package does not import matplotlib."""
