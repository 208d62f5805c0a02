"""PointPillars, a lidar detector with nine losses, in TensorFlow and Keras.

Lang et al., "PointPillars: Fast Encoders for Object Detection from Point
Clouds", CVPR 2019; the nine losses are those of the GradDrop paper (Chen et
al., NeurIPS 2020, section 4.4).

    frame -> augmentation -> pillars -> network -> nine outputs -> detections
                          -> anchors: targets   -> nine losses

| step | where |
| --- | --- |
| all values | `presets.py` |
| flips, rotation, scaling | `augmentation.py` |
| pasting objects of other frames | `pasting.py` |
| points into pillars and onto the grid | `pillars.py` |
| overlap and coding of boxes | `box_tensors.py` |
| anchors and their boxes | `anchors.py` |
| a frame to the network's inputs and targets | `encoding.py` |
| trunk and heads | `network.py` |
| the nine losses | `losses.py` |
| outputs to boxes | `decoding.py` |

A *frame* is a dict of `points` `[N, F]` float32 (x, y, z, intensity, ...),
`boxes` `[M, 7]` float32 (centre x, y, z, length, width, height in metres,
heading in radians, counterclockwise from x) and `num_points` `[M]`, the number
of points in each box.
"""
