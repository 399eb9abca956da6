"""A served reranker on EvalScope 1.3.0 to 1.8.0, on the stored results of embedding.py.

`task_name` and `embed_results` belong together, in this order; every file is checked against its task before anything is
sent. The template of a Qwen3 reranker is applied on exactly one side: here, unless the server has it.
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
                "model_name": "Qwen3-Reranker-0.6B",
                "api_base": "http://localhost:8001/v1/rerank",
                "api_key": "EMPTY",
                "is_cross_encoder": True,
                "encode_kwargs": {"batch_size": 32},
                "model_kwargs": {
                    "instruction_dict_path": "task_prompts.json",
                    "task_name": ["T2Retrieval", "DuRetrieval"],
                    "embed_results": [
                        "outputs/20260101_000000/T2Retrieval_default_predictions.json",
                        "outputs/20260101_000000/DuRetrieval_default_predictions.json",
                    ],
                },
            },
        ],
        "eval": {
            "tasks": ["T2Retrieval", "DuRetrieval"],
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
