from fer_exp.data.seeding import derive_seed


def test_streams_differ_and_repeat():
    seeds = [derive_seed(seed, stream, epoch) for seed in range(5) for stream in range(2) for epoch in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert derive_seed(0, 1, 2) == derive_seed(0, 1, 2)
    assert all(0 <= seed < 2**63 for seed in seeds)
