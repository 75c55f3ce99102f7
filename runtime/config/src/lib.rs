//! From a TOML file to checked, typed settings.
