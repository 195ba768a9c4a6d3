"""What several config files share."""
