"""What the service costs at sizes that no test reaches. Run by hand."""
