"""Pure functions and plans on arrays; nothing here knows of nets, layers or blobs."""
