-- tasks_redrive <task>*: answers with numbers and whether each was redriven already, in turn.

-- What a task requires: its class may be gone.
local function requirements(rec)
  local text = read(rec.name16 .. 'd')
  return table.concat(cjson.decode(string.match(text, '^[^\n]*')).requires or {}, ' ')
end

-- What stands in the way of redriving a task, if anything does; and whether it was redriven already.
local function check_redrive(rec, anew)
  local failed = rec.state == ON_HOLD or rec.state == FAILED or rec.state == CANCELLED
  if anew[rec.id] ~= nil or has(rec, FLAG.redriven) and not failed then
    return nil, true
  elseif not failed then
    return { 'wrong_state', rec.id, STATES[rec.state], 'redrive' }
  end
  local unfinished = {}
  for _, edge in ipairs(after_of(rec)) do
    if is_unfinished(edge[1]) then
      unfinished[#unfinished + 1] = edge[1]
    end
  end
  local cycle = path_to(rec.id, unfinished)
  if cycle then
    return { 'cycle', cycle }
  elseif rec.state ~= ON_HOLD then
    for _, edge in ipairs(after_of(rec)) do
      local other = find_task(edge[1])
      if edge[2] == ON_FAILURE.fail and other and is_finished(other) and other.state ~= DONE and not anew[edge[1]] then
        return { 'wrong_state', edge[1], STATES[other.state], 'redrive_before' }
      end
    end
  end
end

local function revive(rec)
  local was_on_hold = rec.state == ON_HOLD
  note('redriven', rec, '')
  local requires = requirements(rec)
  if not was_on_hold then
    T.bytes = at_least(T.bytes - weigh_task(rec), 0)
    if has(rec, FLAG.outcome) then
      drop(rec.name16 .. 'o')
      without(rec, FLAG.outcome)
    end
    -- What was overdue may take its time now.
    if terms_of(rec).deadline > now then
      arm_timer(DUE.deadline .. rec.name16, terms_of(rec).deadline)
    end
  end
  local old = rec.key
  move(rec, WAITING, function()
    if not was_on_hold then
      rec.class = enter_class(requires)
    end
    rec.failures, rec.since = 0, at_least(now, terms_of(rec).start)
    with(rec, FLAG.redriven)
    for suffix, flag in pairs({ b = FLAG.blocker, p = FLAG.released }) do
      if has(rec, flag) then
        drop(rec.name16 .. suffix)
        without(rec, flag)
      end
    end
    if has(rec, FLAG.history) then
      drop(rec.name16 .. 'h')
      without(rec, FLAG.history)
    end
    rec.key = key_of(rec)
  end)
  if not was_on_hold then
    return begin_task(rec, after_of(rec), true)
  end
  -- Somebody has decided: what failed counts as done, what is not finished is waited for.
  pass_on(rec, old)
  local waits = {}
  for _, edge in ipairs(waits_of(rec)) do
    waits[edge[1]] = true
  end
  for _, edge in ipairs(after_of(rec)) do
    if is_unfinished(edge[1]) and not waits[edge[1]] then
      add_edge(rec, edge[1], edge[2])
    end
  end
  proceed(rec)
end

local function verb()
  local fields, answers, anew, requires = {}, {}, {}, {}
  for place = 5, #ARGV do
    fields[#fields + 1] = name_of(ARGV[place])
  end
  open(fields)
  begin_queues()
  for place = 5, #ARGV do
    local rec = find_named(name_of(ARGV[place]))
    if not rec then
      return { 'unknown_task', tonumber(ARGV[place]) }
    end
    local wrong, duplicate = check_redrive(rec, anew)
    if wrong then
      return wrong
    end
    anew[rec.id] = anew[rec.id] or not duplicate
    answers[#answers + 1], answers[#answers + 2] = rec.id, duplicate and 1 or 0
    if not duplicate and rec.state ~= ON_HOLD then
      requires[#requires + 1] = requirements(rec)
    end
  end
  local wrong = check_tasks_room(requires, 0)
  if wrong then
    return wrong
  end
  for place = 1, #answers, 2 do
    if answers[place + 1] == 0 then
      revive(find_task(answers[place]))
    end
  end
  return { 'ok', answers }
end
