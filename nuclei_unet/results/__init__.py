"""What a run leaves behind: label images, tables, run.json and the summary page."""
