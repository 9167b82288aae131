"""Linear algebra, a Fourier transform, random numbers."""

import numpy as np

rng = np.random.default_rng(1)
matrix = rng.standard_normal((50, 50)) + 50 * np.eye(50)
solved = np.linalg.solve(matrix, np.ones(50))
values = np.linalg.eigvalsh(matrix @ matrix.T)
signal = np.sin(np.linspace(0, 20 * np.pi, 1000, endpoint=False))
assert np.allclose(matrix @ solved, 1)
assert (values > 0).all()
assert np.argmax(np.abs(np.fft.rfft(signal))) == 10
assert np.array(["2024-01-31"], "datetime64[D]")[0] + 1 == np.datetime64("2024-02-01")
