"""Tables, figures and pages about results, and sheets that people fill in."""
