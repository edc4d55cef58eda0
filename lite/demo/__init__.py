"""The demo in the browser."""
