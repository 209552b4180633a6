"""The steps that several stages share."""
