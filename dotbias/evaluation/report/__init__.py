"""Makes the HTML report."""
