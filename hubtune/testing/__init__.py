"""What plugin authors test with: public, and used by hubtune's own tests."""
