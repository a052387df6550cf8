"""The steps from each version of the schema to the next. A step only adds; what it replaces goes a version later."""
