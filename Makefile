# Short targets for those who like make; all of them are in ./dev.
TASKS = demo serve cluster doctor simulator test agents lint check bench format sbom audit lock
.PHONY: $(TASKS)
$(TASKS):
	@./dev $@
