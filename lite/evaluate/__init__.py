"""Reports: figures, tables and plots over a split. Nothing here trains."""
