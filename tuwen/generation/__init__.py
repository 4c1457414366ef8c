"""A5: jobs that draw a product picture for a title, and the process that draws them."""
