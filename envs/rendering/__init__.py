"""Pictures of placements: text, graph and timeline."""
