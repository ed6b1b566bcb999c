"""What the driver of Ray's actors does; test_recipes.py starts it."""

import ray

from tests.parallelism.recipe import SCALES, assert_clipped, part, recipe

if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    stage, clip = recipe("Stage"), recipe("clip_over_actors")
    for scale in SCALES:
        stages = [stage.remote(part(rank, scale)) for rank in range(2)]
        norm = clip(stages, scale)
        for rank, after in enumerate(ray.get([each.gradients.remote() for each in stages])):
            assert_clipped(norm, after, rank, 2, scale)
    ray.shutdown()
    print("passed", flush=True)
