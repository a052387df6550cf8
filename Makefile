# Short targets for those who like make; all of them are in ./dev.
TASKS = demo serve cluster doctor test agents lint check format lock
.PHONY: $(TASKS)
$(TASKS):
	@./dev $@
