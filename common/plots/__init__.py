"""Pictures of results, embeddings, and what was learned. Nothing here measures anything."""
