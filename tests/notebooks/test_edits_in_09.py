"""A student changes a cell of 09: it reaches the network, the losses, the damage and the files."""

import numpy as np
from notebook_tools import edit, metadata, read, run, table, uncomment


def test_blocks_epochs_the_weight_of_the_gan_and_other_damage(tmp_path):
    run(read("03_warmup_training"), tmp_path)
    notebook = uncomment(read("09_super_resolution"), "superres_blocks=4,", "superres_blocks=2,")
    uncomment(notebook, "superres_epochs=10,", "superres_epochs=3,")
    edit(notebook, '"GAN", 0.15,', '"GAN", 0.03,')
    edit(notebook, "K.RandomGaussianNoise(std=0.03, p=1.0)", "K.RandomSaltAndPepperNoise(0.05, p=1.0)")
    run(notebook, tmp_path)
    for name, phase in (("smoke", "superres"), ("smoke", "superres_gan"), ("smoke damaged", "superres")):
        assert metadata(tmp_path, phase, name)["arguments"]["blocks"] == 2
    assert len(table(tmp_path, "superres_history")) == 3
    steps = table(tmp_path, "superres_gan_steps")
    expected = 0.03 * steps["GAN"] + steps["content"] + 6 * steps["L1"]
    np.testing.assert_allclose(steps["G total"], expected, rtol=1e-3)
