"""TRL's DPOTrainer on pairs of answers (TRL's docs, dpo_trainer)."""

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from benchmarks.whole.peers.common import lines, parse, settings, train_and_save

given = parse()
data = Dataset.from_list(lines(given.data / "train.jsonl"))
tokenizer = AutoTokenizer.from_pretrained(given.model)
model = AutoModelForCausalLM.from_pretrained(given.model)
arguments = DPOConfig(**settings(given, grouped=False), gradient_checkpointing=False, beta=0.1,
                      max_length=given.max_length, precompute_ref_log_probs=True)
train_and_save(DPOTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer))
