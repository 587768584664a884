"""Predictions and scores, model and loss checks, and verification of saved models."""
