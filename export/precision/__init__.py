"""Half precision and INT8: conversion of a float32 model, and the gate that it must pass."""
