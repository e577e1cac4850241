-- tasks_release <how> <who> <task>*: each of the tasks waits for the next, and the last for the first, which
-- has the smallest number. Answers whether that is so; then who is to go on does (`proceed`), or fails (`abort`), or
-- waits for a person (`ask`).
local function waits_for(rec, id)
  for _, edge in ipairs(waits_of(rec)) do
    if edge[1] == id then
      return true
    end
  end
  return false
end

local function is_ring(cycle)
  for nth, id in ipairs(cycle) do
    local rec = find_task(id)
    if not rec or not waits_for(rec, cycle[nth % #cycle + 1]) then
      return false
    end
  end
  return true
end

-- The ring as a task of it sees it: itself first.
local function seen_from(id, cycle)
  local nth, turned = 1, {}
  while cycle[nth] ~= id do
    nth = nth + 1
  end
  for place = 1, #cycle do
    turned[place] = cycle[(nth + place - 2) % #cycle + 1]
  end
  return turned
end

local function say(operation, cycle, params, severity)
  record('{"component":"deadlock","operation":"' .. operation .. '","subject":"' .. int(cycle[1]) .. '","params":{' .. params ..
    '},"severity":"' .. severity .. '"}')
end

local function verb()
  local how, who, cycle, fields = ARGV[5], tonumber(ARGV[6]), {}, {}
  for place = 7, #ARGV do
    cycle[#cycle + 1] = tonumber(ARGV[place])
    fields[#fields + 1], fields[#fields + 2] = name_of(ARGV[place]), name_of(ARGV[place]) .. 'w'
  end
  open(fields)
  begin_queues()
  if not is_ring(cycle) then
    return { 'ok', 0 }
  end
  local rec = find_task(who)
  local wait = wait_of(rec)
  if how ~= 'abort' and (not wait or how == 'proceed' and wait.again) then
    return { 'ok', 0 }
  end
  say('detected', cycle, '"cycle":' .. quoted(cycle), 'HIGH')
  if how == 'proceed' then
    deadlock.preempt(rec, seen_from(who, cycle))
  elseif how == 'ask' then
    deadlock.leave_to_a_person(rec, seen_from(who, cycle))
    return { 'ok', 1 }
  else
    fail(rec, 'deadlock', seen_from(who, cycle))
  end
  say('resolved', cycle, '"task":' .. int(who), 'INFO')
  return { 'ok', 1 }
end
