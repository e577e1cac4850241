-- tasks_stats: tasks by state, sessions, classes.
local function verb()
  open()
  return { 'ok', { T[0], T[1], T[2], T[3], T[4], T[5], T[6], T[7], T[8], T.sessions, T.classes } }
end
