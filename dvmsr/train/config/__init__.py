"""What a run is told: settings, recipes, TOML files."""
