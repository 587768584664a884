"""Trainer on questions about a context, by windows (transformers' docs, tasks/question_answering)."""

from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from benchmarks.whole.peers.common import lines, parse, settings, train_and_save

given = parse()
rows = lines(given.data / "train.jsonl")
tokenizer = AutoTokenizer.from_pretrained(given.model)
model = AutoModelForQuestionAnswering.from_pretrained(given.model)
encoded = tokenizer([row["question"].strip() for row in rows], [row["context"] for row in rows],
                    max_length=given.max_length, stride=128, truncation="only_second",
                    return_overflowing_tokens=True, return_offsets_mapping=True)
starts, ends = [], []
for window, (row, offsets) in enumerate(zip(encoded["overflow_to_sample_mapping"], encoded["offset_mapping"])):
    answer = rows[row]["answers"]
    first, last = answer["answer_start"][0], answer["answer_start"][0] + len(answer["text"][0])
    inside = [index for index, part in enumerate(encoded.sequence_ids(window)) if part == 1]
    if offsets[inside[0]][0] > first or offsets[inside[-1]][1] < last:
        starts.append(0)
        ends.append(0)
    else:
        starts.append(max(index for index in inside if offsets[index][0] <= first))
        ends.append(min(index for index in inside if offsets[index][1] >= last))
keep = {name: encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded}
data = Dataset.from_dict({**keep, "start_positions": starts, "end_positions": ends})
train_and_save(Trainer(
    model, TrainingArguments(**settings(given)), train_dataset=data,
    data_collator=DataCollatorWithPadding(tokenizer), processing_class=tokenizer))
