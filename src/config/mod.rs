//! YAML configuration: one documented type per section.
