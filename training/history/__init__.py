"""Training rows as of their time, with what Feast knew then."""
