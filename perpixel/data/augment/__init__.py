"""What may happen to training samples beyond scale, crop, flip and colour jitter: one file per family, all off.

`settings.Augment` says what and is a part of `transforms.Augmentation`; `pipeline.SamplePipeline` does it.
"""
