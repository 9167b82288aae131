"""What layerbuild does with AWS."""
