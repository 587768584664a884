"""TRL's SFTTrainer on prompts and completions, full or LoRA, with or without packing (TRL's docs, sft_trainer)."""

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.whole.peers.common import lines, parse, settings, train_and_save

given = parse()
data = Dataset.from_list(lines(given.data / "train.jsonl"))
tokenizer = AutoTokenizer.from_pretrained(given.model)
model = AutoModelForCausalLM.from_pretrained(given.model)
lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear",
                  task_type="CAUSAL_LM") if given.lora else None
packed = {"packing": True, "max_length": given.packing, "per_device_train_batch_size": 1} if given.packing else {
    "max_length": given.max_length}
if given.padding_free:
    packed |= {"padding_free": True, "max_length": None}  # rows are shorter
arguments = SFTConfig(**{**settings(given, grouped=not given.packing), "gradient_checkpointing": False, **packed})
train_and_save(SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer, peft_config=lora))
