"""A served reranker on EvalScope 1.8.1 and later, on the stored results of embedding.py.

`embed_results` may also be a mapping of task to file; then `task_name` is not needed. Files of either generation of
EvalScope are read.
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
                "model_name": "Qwen3-Reranker-0.6B",
                "api_base": "http://localhost:8001/v1/rerank",
                "api_key": "EMPTY",
                "is_cross_encoder": True,
                "encode_kwargs": {"batch_size": 32},
                "model_kwargs": {
                    "instruction_dict_path": "task_prompts.json",
                    "embed_results": {
                        "T2Retrieval": "outputs/20260101_000000/predictions/T2Retrieval_predictions.json",
                        "DuRetrieval": "outputs/20260101_000000/predictions/DuRetrieval_predictions.json",
                    },
                },
            },
        ],
        "eval": {
            "task_names": ["T2Retrieval", "DuRetrieval"],
            "top_k": 100,
            "verbosity": 2,
            "overwrite_results": True,
            "hub": "modelscope",
        },
    },
}

if __name__ == "__main__":
    run_task(task_cfg=task_cfg)
