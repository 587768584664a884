"""Heads of hubtune's own on pretrained models for which transformers has no class."""
