"""A served embedding model on EvalScope 1.3.0 to 1.8.0, in the spelling of the accelerator's guide.

`pip install evalscope-vacc` beside the EvalScope that is there; `model_type` is the only line that is new. The run leaves,
for every retrieval task, <run>/<Task>_default_predictions.json: what reranker.py starts from.
"""

from evalscope.run import run_task

task_cfg = {
    "work_dir": "outputs",
    "eval_backend": "RAGEval",
    "eval_config": {
        "tool": "MTEB",
        "model": [
            {
                "model_type": "vacc_api",
                "model_name": "Qwen3-Embedding-0.6B",
                "api_base": "http://localhost:8000/v1",
                "api_key": "EMPTY",
                "dimensions": 1024,
                "encode_kwargs": {"batch_size": 32},
                "model_kwargs": {
                    "instruction_template": "Instruct: {}\nQuery:",
                    "instruction_dict_path": "task_prompts.json",
                },
            },
        ],
        "eval": {
            "tasks": ["T2Retrieval", "DuRetrieval", "STSB", "QBQTC"],
            "top_k": 100,
            "verbosity": 2,
            "output_folder": "outputs",
            "overwrite_results": True,
            "limits": None,
            "hub": "modelscope",
        },
    },
}

if __name__ == "__main__":
    run_task(task_cfg=task_cfg)
