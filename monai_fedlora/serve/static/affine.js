/** Matrices of voxels and places in mm, (4, 4) as lists of rows. */

/**
 * Voxel to display in mm: columns to the right, rows downwards, slices as stored, as a scanner's own screen shows them.
 * @param {number[]} sizes of a voxel, with the sizes of the axes from index 1
 * @returns {number[][]} (4, 4)
 */
export function inPlane([, x, y, z]) {
  return [[x, 0, 0, 0], [0, -y, 0, 0], [0, 0, z, 0], [0, 0, 0, 1]];
}

/** @param {number[][]} left @param {number[][]} right */
export function product(left, right) {
  return left.map((row) => right[0].map((_, column) => row.reduce((sum, value, at) => sum + value * right[at][column], 0)));
}

/** @param {number[][]} affine (4, 4), not singular */
export function inverse(affine) {
  const [[a, b, c, x], [d, e, f, y], [g, h, i, z]] = affine;
  const cofactors = [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ];
  const size = a * cofactors[0][0] + b * cofactors[1][0] + c * cofactors[2][0];
  const rows = cofactors.map((row) => row.map((value) => value / size));
  return [...rows.map(([p, q, r]) => [p, q, r, -(p * x + q * y + r * z)]), [0, 0, 0, 1]];
}
