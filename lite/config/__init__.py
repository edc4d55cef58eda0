"""Settings: one place per stage that lists them, read from YAML and the command line."""
