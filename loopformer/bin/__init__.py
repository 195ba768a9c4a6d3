"""Command lines: flags in, one call, one clear line when something is wrong."""
