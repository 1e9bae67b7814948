//! Examples that need more dependencies than one adapter has. Those of an adapter are in its own `examples` folder.
