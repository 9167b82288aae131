"""Statistics, a minimum, an integral, a filter, a spline, a sparse system."""

import numpy as np
from scipy import integrate, interpolate, linalg, optimize, signal, sparse, stats
from scipy.sparse.linalg import spsolve

sample = stats.norm(5, 2).rvs(1000, random_state=1)
found = optimize.minimize(optimize.rosen, [1.3, 0.7, 0.8])
numerator, denominator = signal.butter(4, 0.2)
line = np.linspace(0, 1, 11)
diagonal = sparse.diags([2.0] * 10, format="csc")
assert stats.ttest_1samp(sample, 5).pvalue > 0.01
assert np.allclose(found.x, 1, atol=1e-3)
assert abs(integrate.quad(np.sin, 0, np.pi)[0] - 2) < 1e-9
assert np.isfinite(signal.lfilter(numerator, denominator, sample)).all()
assert abs(interpolate.CubicSpline(line, line**2)(0.55) - 0.3025) < 1e-3
assert np.allclose(linalg.inv(np.eye(3) * 2), np.eye(3) / 2)
assert np.allclose(spsolve(diagonal, np.ones(10)), 0.5)
