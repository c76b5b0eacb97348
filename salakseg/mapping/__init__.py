"""From an orthomosaic to a land-cover map."""
