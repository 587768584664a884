"""The page of a run: `report.html`, from its record, its log and what was kept of its predictions."""
