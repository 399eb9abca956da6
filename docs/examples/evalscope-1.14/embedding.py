"""A served embedding model on EvalScope 1.8.1 and later; the same as ../evalscope-1.3/embedding.py.

The run leaves <run>/predictions/<Task>_predictions.json for every retrieval task: what reranker.py starts from.
"""

from evalscope.run import run_task

task_cfg = {
    "work_dir": "outputs",
    "eval_backend": "RAGEval",
    "eval_config": {
        "tool": "mteb",
        "models": [
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
            "task_names": ["T2Retrieval", "DuRetrieval", "STSB", "QBQTC"],
            "verbosity": 2,
            "overwrite_results": True,
            "hub": "modelscope",
        },
    },
}

if __name__ == "__main__":
    run_task(task_cfg=task_cfg)
