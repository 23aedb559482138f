from saemake.architectures.schedule import learning_rate_scale, sparsity_scale


def test_learning_rate_warms_up_from_zero_holds_and_decays_towards_zero():
    scales = [learning_rate_scale(step, 10, 4, 8) for step in range(10)]
    assert scales == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 0.5]


def test_learning_rate_without_warmup_starts_whole():
    assert learning_rate_scale(0, 10, 0, 8) == 1


def test_sparsity_grows_to_one_and_stays():
    assert [sparsity_scale(step, 4) for step in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
    assert sparsity_scale(0, 0) == 1
